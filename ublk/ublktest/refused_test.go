package ublktest

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRefusedCall(t *testing.T) {
	openat := " syscall=" + strconv.Itoa(unix.SYS_OPENAT) + " compat=0"
	record := `5,1022,98765,-;audit: type=1326 audit(1795955764.020:4): auid=4294967295 uid=1879048272 gid=1879048272 ` +
		`ses=4294967295 subj=unconfined pid=81 comm="ublk-loop" exe="/bin/ublk-loop" sig=0 arch=c000003e` + openat + ` ip=0x47f1ae code=0x50000`
	const server = "uid=1879048272"
	for line, want := range map[string]string{
		record: "openat",
		strings.Replace(record, server, "uid=1883242629", 1):                                                                 "openat", // a process that answers clients
		strings.Replace(record, server, "uid=1887436799", 1):                                                                 "openat", // with the largest number
		strings.Replace(record, server, "uid=1887436800", 1):                                                                 "",
		strings.Replace(record, server, "uid=1879048191", 1):                                                                 "",
		`audit: type=1326 audit(1.0:4): auid=0 uid=0 gid=0 pid=81 comm="runc" exe="/bin/runc" sig=31 arch=c000003e` + openat: "",
		`audit: type=1327 audit(1.0:4): uid=1879048272` + openat:                                                             "",
	} {
		if got := refusedCall(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// The lists of names have no gap.
func TestCallName(t *testing.T) {
	for number, want := range map[int]string{
		unix.SYS_READ: "read", unix.SYS_IOCTL: "ioctl", unix.SYS_NEWFSTATAT: "newfstatat", unix.SYS_EXECVE: "execve",
		unix.SYS_ACCEPT4: "accept4", unix.SYS_WAIT4: "wait4", unix.SYS_GETRANDOM: "getrandom", unix.SYS_RSEQ: "rseq",
		unix.SYS_KEXEC_FILE_LOAD: "kexec_file_load", unix.SYS_PIDFD_SEND_SIGNAL: "pidfd_send_signal", 470: "listns",
		400: "number 400", 9999: "number 9999",
	} {
		if got := callName(number); got != want {
			t.Errorf("call %d is %q, want %q", number, got, want)
		}
	}
}
