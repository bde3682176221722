"""Program for a container: print the machine's metrics as JSON."""

import json

from citadel_monitoring.machine import Machine
from citadel_monitoring.settings import MonitoringFragment

print(json.dumps(Machine(MonitoringFragment(cpu_sample=0.1)).metrics()))
