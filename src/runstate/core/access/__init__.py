"""Access: API keys, principals of requests, and CSRF tokens."""
