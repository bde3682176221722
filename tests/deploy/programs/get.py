"""Get a URL with a key: `python get.py URL AUTHORIZATION`; fails unless the answer is a good one."""

import sys
import urllib.request

request = urllib.request.Request(sys.argv[1], headers={"authorization": sys.argv[2]})
urllib.request.urlopen(request, timeout=10)
