"""The OTLP receiver as a server: `python -m tests.doubles.otlp --host 0.0.0.0 --port 4318`."""

from tests.doubles.base.server import main
from tests.doubles.base.settings import NoSettings
from tests.doubles.otlp.receiver import OtlpDouble

if __name__ == "__main__":
    main(OtlpDouble, NoSettings, __doc__)
