"""Pictures to look at while or after a run: rerun's viewer and a page of HTML; never torch."""
