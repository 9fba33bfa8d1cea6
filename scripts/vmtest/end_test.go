package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeMachine returns the path of vm.sh beside scripts that do nothing, and of a user-mode kernel
// that is a shell script.
func fakeMachine(t *testing.T, script string) (vm, kernel string) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"setup.sh": "#!/bin/sh\n", "vm-initramfs.sh": "#!/bin/sh\necho /dev/null\n", "kernel/linux": "#!/bin/sh\n" + script + "\n",
		"kernel/lib/modules/7.3/x": "", "cpio": "#!/bin/sh\ncat >/dev/null\n",
	}
	for _, name := range []string{"vm.sh", "vm-kernel.sh", "vm-uml.sh", "vm-qemu.sh", "vm-init.sh"} {
		text, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = strings.Replace(string(text), "cpu_directory=/sys/", "cpu_directory=/none/", 1) // takes no machine's CPU
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "vm.sh"), filepath.Join(dir, "kernel")
}

// vm.sh tells a machine that the time limit ended from one that died. The runner of the tests
// tries only the tests of the first again.
func TestEndOfMachine(t *testing.T) {
	for _, c := range []struct {
		name, script, limit string
		want                string
	}{
		{"it is killed, for example because the host lacks memory", "kill -KILL $$", "600", "ended without an exit status"},
		{"it ends", "exit 1", "600", "ended without an exit status"},
		{"it ends with the status of a time limit", "exit 124", "600", "ended without an exit status"},
		{"its kernel panics", "echo 'Kernel panic - not syncing' >&2; exit 1", "600", "panicked"},
		{"it hangs", "exec sleep 1000", "1", "did not end within 1 seconds"},
		{"it hangs and cannot be ended", "trap '' TERM; while :; do sleep 1; done", "1", "did not end within 1 seconds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			vm, kernel := fakeMachine(t, c.script)
			cmd := exec.Command(vm, "run", kernel, "--timeout", c.limit, "--", "true")
			cmd.Env = append(os.Environ(), "UBLK_LOOP_CACHE="+t.TempDir(), "PATH="+filepath.Dir(vm)+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), "vm.sh: error: kernel "+kernel+" "+c.want+"\n") {
				t.Errorf("error %v, want %q in\n%s", err, c.want, out)
			}
		})
	}
}
