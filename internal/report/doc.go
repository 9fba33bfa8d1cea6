// Package report prints the command's results for its user: exit statuses, errors with
// hints, JSON and tables. Only this package translates a hint's settings to flags.
package report
