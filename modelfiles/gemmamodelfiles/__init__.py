"""Data shipped with the program: the catalogue of pairs and the built-in pair `nano`."""
