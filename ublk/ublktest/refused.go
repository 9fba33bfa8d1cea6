package ublktest

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// The kernel logs a system call that the list of a sandbox refuses, if it has auditing
// (AUDIT_SECCOMP in linux/audit.h):
//
//	audit: type=1326 audit(1795955764.020:4): ... uid=1879048272 ... comm="ublk-loop" ... syscall=257 ...
var refusedRecord = regexp.MustCompile(`type=1326 .* uid=(\d+) .* syscall=(\d+) `)

// The users of processes in a sandbox are those of package internal/apart: a base, plus the number of a
// process, which has 22 bits. There are two bases, because a process that answers clients has another user
// than the one that serves requests.
const (
	sandboxUsers = 0x70000000
	sandboxLimit = sandboxUsers + 2<<22
)

// refusedCall returns the name of the system call that a line of the kernel's log says was refused to a
// process in a sandbox, or an empty string.
func refusedCall(line string) string {
	match := refusedRecord.FindStringSubmatch(line)
	if match == nil {
		return ""
	}
	user, err1 := strconv.Atoi(match[1])
	call, err2 := strconv.Atoi(match[2])
	if err1 != nil || err2 != nil || user < sandboxUsers || user >= sandboxLimit {
		return ""
	}
	return callName(call)
}

// provoked has the tests that make a process in a sandbox try what it may not, by name. Each has a call
// that is refused.
var provoked = map[string]string{}

// Provokes says that a test makes a process in a sandbox try system calls that are refused, such as the
// given one. At its end the test fails if the kernel has auditing, but its log lacks this one. It need
// not have the others.
func Provokes(t testing.TB, call string) { provoked[t.Name()] = call }

// logsRefused reports whether the kernel logs refused calls. The file exists if it has auditing.
func logsRefused() bool {
	_, err := os.Stat("/proc/self/loginuid")
	return err == nil
}
