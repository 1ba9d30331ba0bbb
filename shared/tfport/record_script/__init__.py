"""The file that `tfport record-script` writes; nothing here is imported by the rest of tfport."""
