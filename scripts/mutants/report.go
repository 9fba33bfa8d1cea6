package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// report is the results of all mutants of a run.
type report struct {
	total   int
	results map[*mutant]*result
}

// count returns how many mutants were caught, survived and are equivalent.
func (r *report) count() (caught, survived, equivalent int) {
	for m, found := range r.results {
		switch {
		case m.equivalent:
			equivalent++
		case found.Caught:
			caught++
		default:
			survived++
		}
	}
	return caught, survived, equivalent
}

func (r *report) progress() string {
	caught, survived, equivalent := r.count()
	return fmt.Sprintf("%d of %d: %d caught, %d survived, %d equivalent", len(r.results), r.total, caught, survived, equivalent)
}

// print prints the survivors with their diffs, the equivalent mutants that a test caught,
// and the counts last.
func (r *report) print(out io.Writer) {
	for _, m := range r.sorted() {
		found := r.results[m]
		switch {
		case m.equivalent && found.Caught:
			fmt.Fprintf(out, "listed as equivalent, but caught by %s: %s\n", found.How, m.key())
		case !m.equivalent && !found.Caught:
			fmt.Fprintf(out, "survived: %s", m.describe())
		}
	}
	if len(r.results) < r.total {
		fmt.Fprintf(out, "%d mutants were not run\n", r.total-len(r.results))
	}
	caught, survived, equivalent := r.count()
	fmt.Fprintf(out, "%d caught, %d survived, %d equivalent\n", caught, survived, equivalent)
}

func (r *report) sorted() []*mutant {
	var all []*mutant
	for m := range r.results {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *mutant) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.start, b.start))
	})
	return all
}

// verdict returns an error if tests caught less than goal percent, or caught an
// equivalent mutant.
func (r *report) verdict(goal int) error {
	for m, found := range r.results {
		if m.equivalent && found.Caught {
			return errors.New("the list of equivalent mutants is wrong")
		}
	}
	caught, survived, _ := r.count()
	if caught*100 < goal*(caught+survived) {
		return fmt.Errorf("%d of %d caught, less than %d %%", caught, caught+survived, goal)
	}
	return nil
}
