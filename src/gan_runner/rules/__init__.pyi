from gan_runner.game.rule import Rule as Rule
from gan_runner.rules.alternate import Alternate as Alternate
from gan_runner.rules.simultaneous import Simultaneous as Simultaneous
from gan_runner.rules.solo import Solo as Solo
