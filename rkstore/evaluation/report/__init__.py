"""Results as Markdown tables, figures and pages."""
