from gan_runner.rating.page import make as make
from gan_runner.rating.scorer import score as score
