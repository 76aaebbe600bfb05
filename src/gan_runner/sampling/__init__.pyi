from gan_runner.sampling.subjects import Collected as Collected
from gan_runner.sampling.subjects import Generated as Generated
from gan_runner.sampling.subjects import Snapshot as Snapshot
from gan_runner.sampling.subjects import Subject as Subject
from gan_runner.sampling.subjects import evaluating as evaluating
from gan_runner.sampling.subjects import samples as samples
from gan_runner.sampling.walks import interpolation as interpolation
