"""Verifies posts with the Python package of Standard Webhooks, which knows nothing of this project.

Usage: webhook.py FILE. FILE maps names to {secret, headers, body}.
Prints NAME accepted | NAME rejected REASON, one a line.
"""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

with open(sys.argv[1], encoding="utf-8") as file:
    posts = json.load(file)
for name, post in posts.items():
    try:
        Webhook(post["secret"]).verify(post["body"], post["headers"])
        print(name, "accepted")
    except WebhookVerificationError as error:
        print(name, "rejected", error)
