from gan_runner.game.rule import Rule as Rule
from gan_runner.rules.alternate import Alternate as Alternate
from gan_runner.rules.balance import Balance as Balance
from gan_runner.rules.extragradient import Extragradient as Extragradient
from gan_runner.rules.simultaneous import Simultaneous as Simultaneous
from gan_runner.rules.solo import Solo as Solo
from gan_runner.rules.stale import Stale as Stale
