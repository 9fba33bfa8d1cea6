package main

import (
	"slices"
)

// jobs returns all jobs of the run.
func (r *run) jobs() []*job {
	var jobs []*job
	if len(r.kernels) == 0 && r.tier != soak {
		jobs = r.hereJobs()
	}
	if len(r.kernels) == 0 && r.tier == full {
		jobs = append(jobs, r.fuzzJobs()...)
	}
	var left []placement
	for _, p := range r.plan.placements {
		if !r.runner.ledger.has(result{Bed: p.bed.name, Pkg: p.pkg.Dir, Test: p.name}) {
			left = append(left, p)
		}
	}
	for _, g := range split(left, r.runner.times.expect, r.options.jobs) {
		jobs = append(jobs, r.builder.on(g.bed, g.tests, g.expected()))
	}
	return jobs
}

// hereJobs returns one job per module, with the tests that need no kernel.
func (r *run) hereJobs() []*job {
	byModule := map[string][]*pkg{}
	var order []string
	for _, p := range r.pkgs {
		if byModule[p.module] == nil {
			order = append(order, p.module)
		}
		byModule[p.module] = append(byModule[p.module], p)
	}
	var jobs []*job
	for _, module := range order {
		jobs = append(jobs, r.builder.here(module, byModule[module]))
		var other []*pkg
		for _, p := range byModule[module] {
			if p.arm64 {
				other = append(other, p)
			}
		}
		if j := r.builder.arm64(module, other); j != nil {
			jobs = append(jobs, j)
		}
	}
	var left []*job
	for _, j := range jobs {
		j.whole = !r.isNarrow()
		if !r.runner.ledger.isDone(j.title) {
			left = append(left, j)
		}
	}
	return left
}

// again returns a job that repeats the test of a result.
func (r *run) again(res result) *job {
	for _, b := range r.beds {
		if b.name != res.Bed {
			continue
		}
		for _, t := range r.tests {
			if t.pkg.Dir == res.Pkg && t.name == res.Test {
				return r.builder.on(b, []declared{t}, 0)
			}
		}
	}
	i := slices.IndexFunc(r.pkgs, func(p *pkg) bool { return p.Dir == res.Pkg })
	p, make := r.pkgs[i:i+1], r.builder.here
	if res.Bed == arm64 {
		make = r.builder.arm64
	}
	return make(p[0].module, p, "-count=1", "-run", "^"+res.Test+"$")
}

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
