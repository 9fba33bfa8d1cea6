package loop

import (
	"os"
	"os/exec"
	"testing"
)

// TestMain is another process, if it has an argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "another" {
		os.Exit(elsewhere(3))
	}
	os.Exit(m.Run())
}

func TestAnotherProcess(t *testing.T) {
	if err := exec.Command(os.Args[0], "another").Run(); err != nil {
		t.Error(err)
	}
}

func TestClamp(t *testing.T) {
	for value, want := range map[int]int{1: 1, 7: 5, 0: 0} {
		if got, err := Clamp(value, 5); got != want || err != nil {
			t.Errorf("Clamp(%d, 5) is %d, %v", value, got, err)
		}
	}
	if _, err := Clamp(-1, 5); err == nil {
		t.Error("Clamp(-1, 5) does not fail")
	}
	if got := Spin(3); got != 3 {
		t.Errorf("Spin(3) is %d", got)
	}
}

func TestKernelUntested(t *testing.T) {
	if untested(1) != 2 {
		t.Error("not run by the unit tier")
	}
}
