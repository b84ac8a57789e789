"""The conformance kit: verdicts on other implementations. `check(subject)` is the whole of it; `refgen check` the same from outside."""
