package ublktest

import (
	"runtime"
	"testing"
)

func TestRefusedCall(t *testing.T) {
	name := "openat"
	if runtime.GOARCH != "amd64" {
		name = "number 257"
	}
	const record = `5,1022,98765,-;audit: type=1326 audit(1795955764.020:4): auid=4294967295 uid=1879048272 gid=1879048272 ` +
		`ses=4294967295 subj=unconfined pid=81 comm="ublk-loop" exe="/bin/ublk-loop" sig=0 arch=c000003e syscall=257 compat=0 ip=0x47f1ae code=0x50000`
	for line, want := range map[string]string{
		record: name,
		`audit: type=1326 audit(1.0:4): auid=0 uid=0 gid=0 pid=81 comm="runc" exe="/bin/runc" sig=31 arch=c000003e syscall=257 compat=0`: "",
		`audit: type=1327 audit(1.0:4): uid=1879048272 syscall=257 compat=0`:                                                             "",
	} {
		if got := refusedCall(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// The list of names has no gap.
func TestCallName(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the names are those of amd64")
	}
	for number, want := range map[int]string{0: "read", 59: "execve", 334: "rseq", 424: "pidfd_send_signal", 470: "listns", 9999: "number 9999"} {
		if got := callName(number); got != want {
			t.Errorf("call %d is %q, want %q", number, got, want)
		}
	}
}
