package oci

import (
	"maps"
	"slices"
	"strings"
)

// call holds the parts of a runtime's command line that this package needs.
type call struct {
	command   string // "" if there is none
	bundle    string // a directory
	config    string // crun's replacement for the bundle's config.json; "" if there is none
	log       string // "" if there is none
	logFormat string
}

// makesContainer reports whether the runtime makes a container from the bundle.
func (c *call) makesContainer() bool { return c.command == "create" || c.command == "run" }

// plainFlags lists the flags without a value. The list is needed because flags may be
// abbreviated.
var plainFlags = []string{
	"debug", "systemd-cgroup", "help", "version", "usage",
	"detach", "keep", "no-pivot", "no-new-keyring", "no-subreaper", "no-mount-fallback",
}

// plainLetters are their short forms.
const plainLetters = "dhvV?"

// parseCall parses the command lines of runc and crun. runc has flags in the style of Go,
// crun in the style of GNU.
func parseCall(args []string) call {
	c := call{bundle: "."}
	var other string
	values := map[string]*string{
		"log": &c.log, "log-format": &c.logFormat,
		"root": &other, "log-level": &other, "criu": &other, "rootless": &other, "cgroup-manager": &other,
	}
	rest := scanFlags(args, values)
	if len(rest) > 0 && rest[0] == flagsEnd {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return c
	}
	c.command = rest[0]
	if !c.makesContainer() {
		return c
	}
	maps.Copy(values, map[string]*string{
		"bundle": &c.bundle, "b": &c.bundle, "config": &c.config, "f": &c.config,
		"console-socket": &other, "pidfd-socket": &other, "pid-file": &other, "preserve-fds": &other,
	})
	// runc also accepts flags after the container's id; crun refuses such a call.
	for rest = rest[1:]; len(rest) > 0 && rest[0] != flagsEnd; {
		if isFlag(rest[0]) {
			rest = scanFlags(rest, values)
		} else {
			rest = rest[1:]
		}
	}
	return c
}

// flagsEnd makes all following arguments positional.
const flagsEnd = "--"

func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// scanFlags stores the values of flags until the first positional argument, and returns
// the rest of the arguments from there, including flagsEnd.
func scanFlags(args []string, values map[string]*string) []string {
	for len(args) > 0 && isFlag(args[0]) && args[0] != flagsEnd {
		target, value, given := findFlag(args[0], values)
		args = args[1:]
		if target == nil {
			continue
		}
		if !given {
			if len(args) == 0 {
				return nil
			}
			value, args = args[0], args[1:]
		}
		*target = value
	}
	return args
}

// findFlag returns the variable for the value of a flag, or nil for a flag without a
// value. It also returns the value if the argument contains it.
func findFlag(arg string, values map[string]*string) (target *string, value string, given bool) {
	text, isLong := strings.CutPrefix(arg[1:], "-")
	name, value, given := strings.Cut(text, "=")
	if target := values[name]; target != nil {
		return target, value, given
	}
	if isLong {
		return values[completed(name, values)], value, given
	}
	if slices.Contains(plainFlags, name) {
		return nil, "", false
	}
	// These are combined short flags. If a letter is unknown, the argument is an unknown
	// long flag with one dash.
	for i := range len(text) {
		if target := values[text[i:i+1]]; target != nil {
			return target, text[i+1:], i+1 < len(text)
		}
		if !strings.Contains(plainLetters, text[i:i+1]) {
			break
		}
	}
	return nil, "", false
}

// completed returns the only flag that begins with start, as getopt_long(3) does.
func completed(start string, values map[string]*string) string {
	found := ""
	names := slices.Clone(plainFlags)
	for name := range values {
		names = append(names, name)
	}
	for _, name := range names {
		if strings.HasPrefix(name, start) {
			if found != "" {
				return ""
			}
			found = name
		}
	}
	return found
}
