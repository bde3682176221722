"""Post JSON to a URL with a key: `python post.py URL AUTHORIZATION BODY`; prints the good answer that it must get."""

import sys
import urllib.request

url, authorization, body = sys.argv[1:]
headers = {"authorization": authorization, "content-type": "application/json"}
with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=60) as answer:
    print(answer.read().decode())
