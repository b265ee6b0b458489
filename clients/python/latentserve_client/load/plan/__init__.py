"""What to send and when: options, mix, request sizes, arrival schedule, serialized requests."""
