package main

import (
	"path/filepath"
	"strings"
)

// build says how programs and tests are built.
type build struct {
	race bool   // with the race detector
	arch string // for this architecture, as Go names it, or "" for this machine's
}

// withRace are arguments of go build. They build a program with the race detector that
// runs without shared libraries.
var withRace = []string{"-race", "-tags", "netgo,osusergo", "-ldflags", "-linkmode external -extldflags -static"}

// raceSettings is a variable for programs with the race detector. By default each of them sleeps for a second before it
// exits, in which other threads may race. A run has hundreds of such programs.
const raceSettings = "GORACE=atexit_sleep_ms=100"

// title describes the result of a build.
func (b build) title(what string) string {
	if b.arch != "" {
		what += " for " + b.arch
	}
	if b.race {
		what += " with the race detector"
	}
	return what
}

// name returns a file's name that no other build of the same thing has.
func (b build) name(what string) string {
	if b.arch != "" {
		what = b.arch + "-" + what
	}
	if b.race {
		what = "race-" + what
	}
	return what
}

// arguments returns arguments of go build and go test.
func (b build) arguments() []string {
	if b.race {
		return withRace
	}
	return nil
}

// environment returns variables for go.
func (b build) environment() []string {
	env := []string{"CGO_ENABLED=0"}
	if b.race {
		env = []string{"CGO_ENABLED=1"}
	}
	if b.arch != "" {
		env = append(env, "GOARCH="+b.arch)
	}
	return env
}

// build returns how the programs and tests of a bed are built.
func (b *bed) build() build { return build{race: b.race, arch: b.arch} }

// command builds a command of the tree as the Makefile does.
func (s *supplies) command(target, program string) (string, error) {
	return s.get(program, func() (string, error) {
		_, err := s.run(".", nil, "make", "-s", target)
		return filepath.Join(s.top, "bin", program), err
	})
}

// ublkLoop builds the command ublk-loop.
func (s *supplies) ublkLoop(b build) (string, error) {
	if b == (build{}) {
		return s.command("build", "ublk-loop")
	}
	return s.get(b.title("ublk-loop"), func() (string, error) {
		path := filepath.Join(s.work, b.name("ublk-loop"))
		args := append([]string{"build", "-buildvcs=false", "-o", path}, b.arguments()...)
		_, err := s.run(".", b.environment(), "go", append(args, "./cmd/ublk-loop")...)
		return path, err
	})
}

// snapshotter builds the command ublk-loop-snapshotter.
func (s *supplies) snapshotter() (string, error) {
	return s.command("build-snapshotter", "ublk-loop-snapshotter")
}

// tests builds the test binary of a package.
func (s *supplies) tests(p *pkg, b build) (string, error) {
	path := filepath.Join(s.work, b.name(strings.ReplaceAll(p.Dir, "/", "-")+".test"))
	return s.get(b.title("tests of "+p.Dir), func() (string, error) {
		_, err := s.run(p.Dir, b.environment(), "go", append(append([]string{"test", "-c", "-o", path}, b.arguments()...), ".")...)
		return path, err
	})
}
