package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// script writes a program that prints text as a test binary would.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ntest \"$UBLK_LOOP_DECLARE\" || exit 9\n"+text+"\necho PASS\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeclare(t *testing.T) {
	const declares = `printf '=== RUN   TestKernelA\n=== ATTR  TestKernelA needs own disk\n--- SKIP: TestKernelA (0.00s)\n'`
	for _, c := range []struct {
		name, script string
		tests        []string
		wrong        string
	}{
		{"a test", declares, []string{"TestKernelA"}, ""},
		{"in its subtests", `printf '=== RUN   TestKernelB\n=== RUN   TestKernelB/x\n=== ATTR  TestKernelB/x needs disk\n--- PASS: TestKernelB (0.00s)\n    --- SKIP: TestKernelB/x (0.00s)\n'`, []string{"TestKernelB"}, ""},
		{"one that does not", declares + `; printf '=== RUN   TestKernelC\n--- SKIP: TestKernelC (0.00s)\n'`, []string{"TestKernelA"}, "loop.TestKernelC does not declare"},
		{"one that runs", `printf '=== RUN   TestKernelA\n=== ATTR  TestKernelA needs own\n--- PASS: TestKernelA (0.00s)\n'`, []string{"TestKernelA"}, "loop.TestKernelA runs before it declares"},
		{"one that panics", `printf '=== RUN   TestKernelA\npanic: nil map\n'; exit 2`, nil, "nil map"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &pkg{Dir: "loop"}
			top := t.TempDir()
			if err := os.Mkdir(filepath.Join(top, p.Dir), 0o700); err != nil {
				t.Fatal(err)
			}
			tests, err := declare(t.Context(), top, p, script(t, c.script))
			var names []string
			for _, d := range tests {
				names = append(names, d.name)
			}
			if !slices.Equal(names, c.tests) || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("tests %q, error %v; want %q, %q", names, err, c.tests, c.wrong)
			}
			if len(tests) > 0 && !tests[0].needs[ublktest.ScratchDisk] && c.wrong == "" {
				t.Errorf("needs are %v", tests[0].needs)
			}
		})
	}
}
