package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A step of CI that fails keeps no other from running, and the last line has all counts.
func TestCI(t *testing.T) {
	text, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	const counts = "echo '1 unsteady: x'; echo '70 passed, 0 failed, 2 skipped';"
	for _, c := range []struct {
		name  string
		steps map[string]string // the commands of make's targets
		last  string
		good  bool
	}{
		{"all is well", nil, "70 passed, 0 failed, 2 skipped", true},
		{"tests fail", map[string]string{"test": "echo '68 passed, 2 failed, 2 skipped'; exit 2"}, "68 passed, 2 failed, 2 skipped", false},
		{"no tests", map[string]string{"test": "exit 2"}, "0 passed, 1 failed, 0 skipped", false},
		{"tests that end without an error or counts", map[string]string{"test": ":"}, "0 passed, 0 failed, 0 skipped", false},
		{"tests that pass before an error", map[string]string{"test": counts + "exit 1"}, "70 passed, 1 failed, 2 skipped", false},
		{"lint", map[string]string{"lint": "exit 1"}, "70 passed, 1 failed, 2 skipped", false},
		{"lint and tests", map[string]string{"lint": "exit 1", "test": "echo '1 passed, 1 failed, 0 skipped'; exit 2"}, "1 passed, 2 failed, 0 skipped", false},
		{"the benchmark", map[string]string{"bench-check": "exit 1"}, "70 passed, 1 failed, 2 skipped", false},
		{"no package can be installed", map[string]string{"setup": "exit 1"}, "70 passed, 1 failed, 2 skipped", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			steps := map[string]string{"test": counts, "lint": ":", "bench-check": ":", "setup": ":"}
			maps.Copy(steps, c.steps)
			script := "#!/bin/sh\necho \"ran $1\"\ncase $1 in\n"
			for _, target := range []string{"test", "lint", "bench-check"} {
				script += target + ") " + strings.TrimSuffix(steps[target], ";") + ";;\n"
			}
			top := tree(t, map[string]string{
				".ci/run": string(text), "scripts/setup.sh": "#!/bin/sh\n" + steps["setup"] + "\n",
				"path/make": script + "esac\n", "path/go": "#!/bin/sh\n",
			})
			for _, program := range []string{".ci/run", "scripts/setup.sh", "path/make", "path/go"} {
				if err := os.Chmod(filepath.Join(top, program), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(filepath.Join(top, ".ci/run"))
			cmd.Env = append(os.Environ(), "PATH="+filepath.Join(top, "path")+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.good || !strings.HasSuffix(string(out), "\n"+c.last+"\n") || strings.Count(string(out), "\nran ") != 3 {
				t.Errorf("error %v, want the last line %q after three targets:\n%s", err, c.last, out)
			}
		})
	}
}
