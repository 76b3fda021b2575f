// Package tap prints results as the Test Anything Protocol, by the names that the validation suite calls: Debian does not
// package the library that the suite was written with.
package tap

import (
	"encoding/json"
	"fmt"
	"os"
)

// T counts results as it prints them.
type T struct {
	count int
	plan  bool
	todo  bool
}

// New begins a report.
func New() *T { return &T{} }

// Header prints the version and, where the number of results is known, the plan.
func (t *T) Header(results int) {
	fmt.Println("TAP version 13")
	if results > 0 {
		fmt.Printf("1..%d\n", results)
		t.plan = true
	}
}

// AutoPlan prints the plan at the end, where it was not known before.
func (t *T) AutoPlan() {
	if !t.plan {
		fmt.Printf("1..%d\n", t.count)
	}
}

// Ok prints a result.
func (t *T) Ok(passed bool, description string) {
	t.count++
	word := "ok"
	if !passed {
		word = "not ok"
	}
	directive := ""
	if t.todo {
		directive = " # TODO"
		t.todo = false
	}
	fmt.Printf("%s %d%s - %s\n", word, t.count, directive, description)
}

// Todo marks the next result as one that the suite itself does not know how to get.
func (t *T) Todo() *T {
	t.todo = true
	return t
}

// Pass prints a good result.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail prints a bad result.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip prints results that could not be had.
func (t *T) Skip(results int, reason string) {
	for ; results > 0; results-- {
		t.count++
		fmt.Printf("ok %d # SKIP %s\n", t.count, reason)
	}
}

// Diagnostic prints a remark.
func (t *T) Diagnostic(remark string) { fmt.Println("# " + remark) }

// Diagnosticf prints a remark made of parts.
func (t *T) Diagnosticf(format string, parts ...interface{}) { t.Diagnostic(fmt.Sprintf(format, parts...)) }

// YAML prints data about the last result; JSON is YAML too.
func (t *T) YAML(data interface{}) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "  ---\n  %s\n  ...\n", text)
	return nil
}
