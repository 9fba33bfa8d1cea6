package losetup

import (
	"slices"
	"strings"
	"testing"
)

// The messages are those of losetup 2.42.4 for the same command lines.
func TestUsage(t *testing.T) {
	try := "\nTry 'losetup --help' for more information."
	setupOnly := "the options --{sizelimit,partscan,read-only,show} are allowed during loop device setup only"
	for line, want := range map[string]string{
		"--unknownopt":       "unrecognized option '--unknownopt'" + try,
		"-x":                 "invalid option -- 'x'" + try,
		"-o":                 "option requires an argument -- 'o'" + try,
		"--offset":           "option '--offset' requires an argument" + try,
		"-j":                 "option requires an argument -- 'j'" + try,
		"--all=3":            "option '--all' doesn't allow an argument" + try,
		"--de":               "option '--de' is ambiguous; possibilities: '--detach' '--detach-all'" + try,
		"--s":                "option '--s' is ambiguous; possibilities: '--set-capacity' '--sector-size' '--sizelimit' '--show'" + try,
		"-o abc":             "failed to parse offset: 'abc': Invalid argument",
		"-o -5":              "failed to parse offset: '-5': Invalid argument",
		"-o 1Z":              "failed to parse offset: '1Z': Numerical result out of range",
		"-b 3x -f":           "failed to parse logical block size: '3x': Invalid argument",
		"--sizelimit= -f":    "failed to parse size: '': Invalid argument",
		"-o 1.5K":            "no loop device specified",
		"-D -a":              "options --detach-all and --all cannot be combined",
		"-d -f -D":           "options --detach and --find cannot be combined",
		"-J --raw":           "options --json and --raw cannot be combined",
		"-d --list":          "options --detach and --list cannot be combined",
		"-O NAME -f":         "options --output and --find cannot be combined",
		"-O FOO":             "unknown column: FOO",
		"-O NAME,foo":        "unknown column: foo",
		"--direct-io=foo":    "unsupported argument: foo",
		"-d":                 "no loop device specified",
		"-c":                 "no loop device specified",
		"--remove":           "no loop device specified",
		"-r":                 "no loop device specified",
		"-L":                 "no loop device specified",
		"--show":             "no loop device specified",
		"-n":                 "no loop device specified",
		"-f a b":             "unexpected arguments",
		"--sizelimit 5 -a":   setupOnly,
		"-d -r ublkb0":       setupOnly,
		"-o 5 -a":            "the option --offset is not allowed in this context",
		"-o 5 -l":            "the option --offset is not allowed in this context",
		"--remove ublkb0":    "--remove has no meaning for ublk devices: a device that is detached no longer exists",
		"/dev/foo a.img":     "/dev/foo: failed to use device: devices are called /dev/ublkbN",
		"ublkb01 a.img":      "/dev/ublkb01: failed to use device: devices are called /dev/ublkbN",
		"/dev/loop0 a.img":   "/dev/loop0: failed to use device: devices are called /dev/ublkbN",
		"-fb 5G a.img":       "a.img: failed to set up loop device: Invalid argument",
		"-f --show --raw -J": "options --raw and --json cannot be combined",
	} {
		s := &fakeSystem{}
		says(t, s, line, "losetup: "+want+"\nstatus 1\n")
		if len(s.attached) > 0 {
			t.Errorf("losetup %s attaches %q", line, s.attached)
		}
	}
}

// Both styles of arguments, cut names, and operands before options mean the same.
func TestStyles(t *testing.T) {
	s := &fakeSystem{devices: someDevices()}
	s.devices[2].ReadOnly = false // the fake refuses to detach a read-only device
	for _, line := range []string{
		"-d ublkb1 ublkb2", "-dublkb1 ublkb2", "-d/dev/ublkb1 /dev/ublkb2", "--detach=ublkb1 ublkb2", "--detach ublkb1 ublkb2",
		"ublkb1 -d ublkb2", "ublkb1 ublkb2 -v -d", "-vd ublkb1 -- ublkb2", "--detach -- ublkb1 ublkb2",
	} {
		s.detached = nil
		says(t, s, line, "status 0\n")
		slices.Sort(s.detached)
		if got := strings.Join(s.detached, " "); got != "/dev/ublkb1 /dev/ublkb2" {
			t.Errorf("losetup %s detaches %q", line, got)
		}
	}
	for _, line := range []string{"-c ublkb1", "-cublkb1", "--set-capacity=/dev/ublkb1", "--set ublkb1 ublkb2"} {
		s.resized = nil
		says(t, s, line, "status 0\n")
		if got := strings.Join(s.resized, " "); got != "/dev/ublkb1" {
			t.Errorf("losetup %s resizes %q", line, got)
		}
	}
}

func TestHelp(t *testing.T) {
	got := run(t, &fakeSystem{}, "-h", "--nonsense")
	if strings.Contains(got, "Usage:") {
		t.Errorf("an unknown option is taken after -h: %s", got)
	}
	got = run(t, &fakeSystem{}, "-f", "-h", "-D")
	for _, o := range options {
		if o.long != "verbose" && o.long != "remove" && !strings.Contains(got, "--"+o.long) {
			t.Errorf("the help lacks --%s", o.long)
		}
	}
	for _, c := range columns {
		if !strings.Contains(got, c.name+"  "+c.help) {
			t.Errorf("the help lacks %s", c.name)
		}
	}
	says(t, &fakeSystem{}, "-V", "losetup from ublk-loop 1, with the options of util-linux 2.42\nstatus 0\n")
}
