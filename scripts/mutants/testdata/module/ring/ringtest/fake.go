// Package ringtest is support of tests: no place for faults.
package ringtest

import "testing"

// Fail fails a test.
func Fail(t *testing.T) { t.Fatal(1 + 1) }
