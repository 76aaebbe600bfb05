from gan_runner.refinement.refiner import Refiner as Refiner
from gan_runner.refiners.auto import Auto as Auto
from gan_runner.refiners.flow import DGflow as DGflow
from gan_runner.refiners.langevin import DDLS as DDLS
from gan_runner.refiners.metropolis import MHGAN as MHGAN
from gan_runner.refiners.rejection import DRS as DRS
from gan_runner.refiners.rejection import OBRS as OBRS
from gan_runner.refiners.transport import DOT as DOT
