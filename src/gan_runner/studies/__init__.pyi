from gan_runner.jobs.search import OptunaSweeper as OptunaSweeper
from gan_runner.studies.refiners import Refiners as Refiners
from gan_runner.studies.summary import Figure as Figure
from gan_runner.studies.summary import Row as Row
from gan_runner.studies.summary import Summary as Summary
from gan_runner.studies.summary import Table as Table
from gan_runner.studies.summary import value_of as value_of
