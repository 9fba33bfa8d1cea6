package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A resumed run keeps the tests that passed, and repeats those that failed or had not
// ended.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results", "key.json")
	first := newLedger()
	if err := first.open(path, false); err != nil {
		t.Fatal(err)
	}
	first.add(one("uml", "TestA", passed))
	first.add(one("uml", "TestB", failed))
	first.add(one("uml", "TestC", failed))
	first.add(one("uml", "TestC", passed)) // the second try passes
	first.add(one("7.3", "TestA", skipped))
	first.finish("here .")
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, `{"Result":{"Bed":"uml","Pkg":"loop","Te`) // as if the run was killed while it wrote

	second := newLedger()
	if err := second.open(path, true); err != nil {
		t.Fatal(err)
	}
	for r, want := range map[*result]bool{
		new(one("uml", "TestA", passed)): true, new(one("uml", "TestB", passed)): false, new(one("uml", "TestC", passed)): true,
		new(one("7.3", "TestA", passed)): true, new(one("6.12", "TestA", passed)): false,
	} {
		if second.has(*r) != want {
			t.Errorf("%s: known %v, want %v", r, second.has(*r), want)
		}
	}
	if got := sum(second.all()); got.passed != 2 || got.failed != 0 || !second.isDone("here .") || second.isDone("arm64 .") {
		t.Errorf("%+v, jobs %v", got, second.done)
	}
	appended := one("uml", "TestD", passed)
	second.add(appended)
	if err := second.close(); err != nil {
		t.Fatal(err)
	}
	third := newLedger()
	if err := third.open(path, true); err != nil || !third.has(appended) {
		t.Errorf("after the second run: %v, %v", err, third.all())
	}
	if err := third.close(); err != nil {
		t.Error(err)
	}
	fresh := newLedger()
	if err := fresh.open(path, false); err != nil || len(fresh.all()) != 0 {
		t.Errorf("a run that does not resume begins with %v, error %v", fresh.all(), err)
	}
	if err := fresh.close(); err != nil {
		t.Error(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := firstError(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOldResultsGo(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, "old"), filepath.Join(dir, "young")
	for path, age := range map[string]time.Duration{old: keepResults + time.Hour, young: keepResults - time.Hour} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	removeOld(dir)
	if _, err := os.Stat(old); err == nil {
		t.Error("old results are kept")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error(err)
	}
}

func TestTimes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tests", "times.json")
	p := placement{declared{&pkg{Dir: "loop"}, "TestA", needs{}}, newBed("7.3")}
	known := readTimes(path)
	if s := known.expect(p); s != usual[machine] {
		t.Errorf("a test that never ran is expected to take %v s", s)
	}
	r := one("7.3", "TestA", passed)
	r.Seconds = 4
	known.saw(r)
	bad := one("7.3", "TestA", failed)
	bad.Seconds = 900 // the time of a failure, which must not be kept
	known.saw(bad)
	if err := known.write(); err != nil {
		t.Fatal(err)
	}
	if s := readTimes(path).expect(p); s != 4 {
		t.Errorf("it is expected to take %v s, want 4", s)
	}
}
