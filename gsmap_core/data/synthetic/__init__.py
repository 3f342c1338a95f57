"""Procedural towns, drives through them, and the renderer that shows them to a camera rig."""
