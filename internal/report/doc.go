// Package report is what the command tells its user: exit statuses, errors with
// hints, JSON and tables. Hints name settings as flags here, and only here.
package report
