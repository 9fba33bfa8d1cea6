package oci

import (
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

// plainFlags are those without a value that have to be known: with one dash
// they could be taken for short flags in a row.
var plainFlags = []string{
	"debug", "systemd-cgroup", "help", "version", "usage",
	"detach", "keep", "no-pivot", "no-new-keyring", "no-subreaper",
}

// parseCall finds its way through the flags of runc and crun, which are in
// Go's style in the one and in GNU's in the other.
func parseCall(args []string) call {
	c := call{bundle: "."}
	var other string
	rest := scanFlags(args, map[string]*string{
		"log": &c.log, "log-format": &c.logFormat,
		"root": &other, "log-level": &other, "criu": &other, "rootless": &other, "cgroup-manager": &other,
	})
	if len(rest) == 0 {
		return c
	}
	c.command = rest[0]
	if c.makesContainer() {
		scanFlags(rest[1:], map[string]*string{
			"bundle": &c.bundle, "b": &c.bundle, "config": &c.config, "f": &c.config,
			"console-socket": &other, "pidfd-socket": &other, "pid-file": &other, "preserve-fds": &other,
		})
	}
	return c
}

// scanFlags takes the values of flags until the first argument that is none,
// and returns what is left from there.
func scanFlags(args []string, values map[string]*string) []string {
	for len(args) > 0 {
		arg := args[0]
		if len(arg) < 2 || arg[0] != '-' {
			return args
		}
		args = args[1:]
		if arg == "--" {
			return args
		}
		target, value, given := findFlag(arg, values)
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
	return nil
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
	for i := range len(text) {
		if target := values[text[i:i+1]]; target != nil {
			return target, text[i+1:], i+1 < len(text)
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
