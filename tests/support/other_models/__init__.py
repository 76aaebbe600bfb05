"""Parts as a user writes them, of every kind of model that a game takes besides two players on images or points."""
