package oci

import (
	"maps"
	"slices"
	"strings"
)

// call is a runtime's command line, as far as it matters here.
type call struct {
	command   string // "" for none
	bundle    string // a directory
	config    string // of crun: in place of the bundle's config.json; "" for that
	log       string // "" for none
	logFormat string
}

// makesContainer reports whether the runtime will read the bundle.
func (c *call) makesContainer() bool { return c.command == "create" || c.command == "run" }

// plainFlags are those without a value that have to be known: of others only the
// start could be given.
var plainFlags = []string{
	"debug", "systemd-cgroup", "help", "version", "usage",
	"detach", "keep", "no-pivot", "no-new-keyring", "no-subreaper", "no-mount-fallback",
}

// plainLetters are the short ones of those.
const plainLetters = "dhvV?"

// parseCall finds its way through the flags of runc and crun, which are in
// Go's style in the one and in GNU's in the other.
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
	// runc takes flags behind the container's id, too; crun refuses such a call.
	for rest = rest[1:]; len(rest) > 0 && rest[0] != flagsEnd; {
		if isFlag(rest[0]) {
			rest = scanFlags(rest, values)
		} else {
			rest = rest[1:]
		}
	}
	return c
}

// flagsEnd has all that follows be arguments.
const flagsEnd = "--"

func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// scanFlags takes the values of flags until the first argument that is none,
// and returns what is left from there, with flagsEnd.
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

// findFlag returns where the value of a flag goes, nil for one that has none,
// and the value where it is a part of the argument.
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
	// Short flags in a row, unless a letter is none: then it is a long flag that
	// is not known here, and has one dash.
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

// completed returns the only flag that starts so, as getopt_long(3) does.
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
