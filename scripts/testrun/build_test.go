package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
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

// make builds each program in a checkout that belongs to another user, and its version is the
// commit's. Git and Go's stamp of the commit refuse such a checkout by default.
func TestBuildOfAnothersCheckout(t *testing.T) {
	ublktest.NeedsOtherUsers(t)
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	const program = "package main\n\nvar version string\n\nfunc main() { println(version) }\n"
	files := map[string]string{"Makefile": string(makefile), "go.mod": "module x.example/m\n\ngo 1.26\n", "cmd/ublk-loop/main.go": program}
	for _, module := range []string{"cmd/ublk-loop-snapshotter", "cmd/ublk-loop-csi"} {
		files[module+"/main.go"], files[module+"/go.mod"] = program, "module x.example/"+module+"\n\ngo 1.26\n"
	}
	top := tree(t, files)
	script := `set -e
git init -q; git add .; git -c user.name=x -c user.email=x commit -qm x; git tag v1.2.3
chown -R nobody .
if git status; then exit 1; fi
make build build-snapshotter build-csi
for program in bin/*; do ./"$program"; done`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GOFLAGS=-buildvcs=auto") // Go's default
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\nv1.2.3\n") == 0 {
		t.Errorf("error %v\n%s", err, out)
	}
	for _, name := range []string{"ublk-loop", "ublk-loop-snapshotter", "ublk-loop-csi"} {
		if _, err := os.Stat(filepath.Join(top, "bin", name)); err != nil {
			t.Error(err)
		}
	}
}
