"""The engines that `bench.engine` measures. Each is a module with an `ENGINE`, and, run as a program, its worker."""
