// Package loop is what the tests of mutants put faults into.
package loop

import "errors"

var errNegative = errors.New("negative")

// Clamp returns a value of at most limit.
func Clamp(value, limit int) (int, error) {
	if value < 0 {
		return 0, errNegative
	}
	if value > limit {
		value = limit
	}
	return value, nil
}

func untested(value int) int { return value + 1 }

// Spin ends after so many turns.
func Spin(turns int) (done int) {
	for turns > 0 {
		turns--
		done++
	}
	return done
}

// elsewhere is 0 for 3. Only another process of the tests calls it.
func elsewhere(value int) int { return value - 3 }
