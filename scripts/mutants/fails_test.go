package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const resultsAndErrors = `package loop

import (
	"errors"
	"fmt"

	"example.com/module/hint"
)

var errSentinel = errors.New("x")

type number int

func (n number) Error() string { return "x" }

type loss struct{ text string }

func (l *loss) Error() string { return l.text }

func lost(text string) error { return &loss{text} }

func maybe(n int) error {
	if n == 0 {
		return nil
	}
	return &loss{"x"}
}

func skipsSentinel() (int, error)      { return 7, errSentinel }
func skipsOtherSentinel() (int, error) { return 7, errors.ErrUnsupported }
func skipsNegative() (int, error)      { return -7, errSentinel }
func skipsBoolean() (bool, error)      { return false, errSentinel }
func skipsNew() (int, error)           { return 7, errors.New("x") }
func skipsWrapped() (int, error)       { return 7, fmt.Errorf("x: %w", maybe(n)) }
func skipsNumber() (int, error)        { return 7, number(n) }
func skipsMade() (int, error)          { return 7, lost("x") }

func skipsChecked() (int, error) {
	if err := maybe(n); err != nil && n != k {
		return 7, err
	}
	return k, nil
}

func skipsHint() (int, error) {
	err := maybe(n)
	if err != nil {
		return 7, hint.Add(err, "x")
	}
	return k, nil
}

func skipsCase() (int, error) {
	err := maybe(n)
	switch {
	case errors.Is(err, errSentinel):
		return 7, err
	}
	return k, nil
}

func drawsNil() (int, error)           { return 7, nil }
func drawsMaybe() (int, error)         { return 7, maybe(n) }
func drawsOtherResult() (error, int)   { return errSentinel, 7 }
func drawsArgument() (number, error)   { return number(7), errSentinel }
func drawsInError() (int, error)       { return k, number(7) }
func drawsHintOfMaybe() (int, error)   { return 7, hint.Add(maybe(n), "x") }

func drawsUnchecked() (int, error) {
	err := maybe(n)
	return 7, err
}

func drawsPartlyChecked() (int, error) {
	if err := maybe(n); err != nil || n == k {
		return 7, err
	}
	return k, nil
}

func drawsElse() (int, error) {
	if err := maybe(n); err != nil {
		return k, err
	} else {
		return 7, err
	}
}

func drawsOtherChecked() (int, error) {
	err := maybe(k)
	if other := maybe(n); other != nil {
		return 7, err
	}
	return k, nil
}

func drawsCaseOfTwo() (int, error) {
	err := maybe(n)
	switch {
	case errors.Is(err, errSentinel), n == k:
		return 7, err
	}
	return k, nil
}

var n, k int
`

// A result beside an error that is certainly not nil has no mutants. Other results have.
func TestResultBesideError(t *testing.T) {
	module(t)
	for name, src := range map[string]string{
		"hint/hint.go":  "package hint\n\nfunc Add(err error, s string) error { return err }\n",
		"loop/clamp.go": resultsAndErrors,
	} {
		if err := os.MkdirAll(strings.SplitN(name, "/", 2)[0], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, all := load1(t)
	functions := 0
	for _, declaration := range p.files["loop/clamp.go"].Decls {
		name := functionName(declaration)
		if !strings.HasPrefix(name, "skips") && !strings.HasPrefix(name, "draws") {
			continue
		}
		functions++
		drawn := slices.ContainsFunc(all, func(m *mutant) bool {
			return m.function == name && (m.operator == "constant" || m.operator == "operand alone")
		})
		if drawn != strings.HasPrefix(name, "draws") {
			t.Errorf("%s: a mutant of a constant: %v", name, drawn)
		}
	}
	if functions != 22 {
		t.Errorf("%d functions", functions)
	}
}
