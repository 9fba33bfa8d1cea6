package main

import (
	"slices"
	"strings"
	"testing"
)

// Builds of the same program are different supplies and different files.
func TestBuilds(t *testing.T) {
	titles, names := map[string]bool{}, map[string]bool{}
	for _, b := range []build{{}, {race: true}, {arch: "arm64"}, {race: true, arch: "arm64"}} {
		titles[b.title("tests")], names[b.name("tests")] = true, true
		env := strings.Join(b.environment(), " ")
		if strings.Contains(env, "GOARCH=arm64") != (b.arch != "") || strings.Contains(env, "CGO_ENABLED=1") != b.race ||
			slices.Contains(b.arguments(), "-race") != b.race {
			t.Errorf("%+v: %s go build %q", b, env, b.arguments())
		}
	}
	if len(titles) != 4 || len(names) != 4 {
		t.Errorf("titles %v, names %v", titles, names)
	}
}

// Only --kernel runs kernels for another architecture. A tier that has no such kernel says so, and
// does not pass without a test.
func TestOtherArchitecture(t *testing.T) {
	r := &run{options: &options{tier: full, kernels: []string{"6.12"}}}
	var err error
	if r.beds, err = matrix("../.."); err != nil {
		t.Fatal(err)
	}
	for _, b := range r.beds {
		if b.arch != "" {
			t.Errorf("the matrix has %s", b.name)
		}
	}
	if err := r.checkNames(); err != nil {
		t.Error(err)
	}
	r.kernels = append(r.kernels, "7.3-arm64")
	if err := r.checkNames(); err == nil || !strings.Contains(err.Error(), "7.3-arm64") {
		t.Errorf("a kernel outside the matrix: %v", err)
	}
}
