package ublktest

import "strconv"

// callName returns the number of a system call.
func callName(number int) string { return "number " + strconv.Itoa(number) }
