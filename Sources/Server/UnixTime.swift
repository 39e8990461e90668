import Glibc

/// Seconds since 1970.
func secondsSince1970() -> Int { time(nil) }
