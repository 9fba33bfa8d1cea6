package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// known matches a line of kernels.txt: the name of a kernel, and the version with which all tests have passed.
var known = regexp.MustCompile(`(?m)^([^#\s]+)\s[^#\n]*# *(\S+)$`)

// knownVersions returns the versions that the text of kernels.txt names.
func knownVersions(text string) map[string]string {
	versions := map[string]string{}
	for _, m := range known.FindAllStringSubmatch(text, -1) {
		versions[m[1]] = m[2]
	}
	return versions
}

// versionOf returns the version of a kernel in a directory, or "" if it has none.
func versionOf(dir string) string {
	entries, err := os.ReadDir(filepath.Join(dir, "lib/modules"))
	if err != nil || len(entries) != 1 {
		return ""
	}
	return entries[0].Name()
}

// describeKernels returns a line with the version of each kernel, in the order of the names. It says which are not those
// of kernels.txt: a new release of Debian changes what is tested.
func describeKernels(versions, known map[string]string, names []string) string {
	var words []string
	for _, name := range names {
		version := versions[name]
		if version == "" || slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, name+" is ") }) {
			continue
		}
		word := name + " is " + version
		if want := known[name]; want != "" && version != want && !strings.HasPrefix(version, want+"+") && !strings.HasPrefix(version, want+"-") {
			word += fmt.Sprintf(" (not %s, which kernels.txt names)", want)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// printKernels prints the versions of the kernels that the run has had.
func (r *run) printKernels() {
	text, _ := os.ReadFile(filepath.Join(r.top, "scripts/kernels.txt")) // newBed has needed it, or there is none to compare with
	versions := map[string]string{}
	var names []string
	for _, b := range r.beds {
		names = append(names, b.kernel)
		versions[b.kernel] = versionOf(r.builder.supplies.made("kernel " + b.kernel))
	}
	if line := describeKernels(versions, knownVersions(string(text)), names); line != "" {
		fmt.Fprintf(r.out, "kernels: %s\n", line)
	}
}
