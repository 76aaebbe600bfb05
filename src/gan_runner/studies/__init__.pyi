from gan_runner.jobs.search import OptunaSweeper as OptunaSweeper
