package main

// fuzzTime is how long each fuzz test runs in a full run.
const fuzzTime = "1m"

func (r *run) fuzzJobs() []*job {
	var jobs []*job
	for _, p := range r.pkgs {
		for _, name := range p.fuzz {
			done := r.runner.ledger.has(result{Bed: "fuzz", Pkg: p.Dir, Test: name})
			if !done && (r.run == nil || r.run.MatchString(name)) {
				jobs = append(jobs, r.builder.fuzz(p, name, fuzzTime))
			}
		}
	}
	return jobs
}
