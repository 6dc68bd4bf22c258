"""conda environments: environment.yml, solved and locked on this machine, installed in a container."""
