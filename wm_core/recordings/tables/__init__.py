"""Reads data sets that are tables of steps: LeRobot sets, HDF5 and npz episodes, Minari."""
