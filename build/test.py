import sys, environment

sys.exit(0 if environment.set_up(dev=True) else 1)
